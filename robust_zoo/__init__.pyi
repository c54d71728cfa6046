from . import architectures as architectures
from . import attacks as attacks
from . import backend as backend
from . import datasets as datasets
from . import defenses as defenses
from . import evaluation as evaluation
from . import testing as testing
from .classifier import as_classifier as as_classifier
from .datasets import Dataset as Dataset
from .datasets import load_dataset as load_dataset
from .datasets import open_dataset as open_dataset
from .evaluation import evaluate as evaluate
from .evaluation import measure as measure
from .evaluation import merge as merge
from .evaluation import plan_evaluation as plan_evaluation
from .evaluation import verify as verify
from .porting import port as port
from .record import RobustnessRecord as RobustnessRecord
from .report import plots as plots
from .zoo import list_models as list_models
from .zoo import load_attack as load_attack
from .zoo import load_model as load_model
from .zoo import load_record as load_record
from .zoo import publish as publish
from .zoo import save_model as save_model

__version__: str
